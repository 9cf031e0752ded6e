"""What the actions of the pages say: how many, and a command that the program takes as it stands."""

import shlex
from dataclasses import replace

import click
import pytest
from reports import DESTINATION, LOSS, NOW, SOURCE, report

from gapless.cli.main import LazyCommand, main
from gapless.console.pages.actions import ACTIONS
from gapless.console.pages.preview import ActionPreview, NothingToDo
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.destinations import Pause
from gapless.operations.registry import OPERATIONS

BUSY = replace(
    DESTINATION,
    backlog={**DESTINATION.backlog, DeliveryState.DEAD: 14, DeliveryState.HELD: 2},
    dead={"consumer_4xx": 14},
    held={"restored": 2},
)
RESTING = replace(BUSY, name="rest", pause=Pause(since_us=5, by="ann", reason="why"))
WHOLE = report(replace(SOURCE, unrecoverable=(LOSS,)), BUSY, RESTING)
ASKED = {
    "replay": {"source": "acme", "key": "evt 1"},
    "cancel": {"id": "7"},
    "requeue": {"destination": BUSY.name, "reason": "consumer_4xx"},
    "release": {"source": "acme"},
    "acknowledge": {"source": "acme"},
    "dismiss": {"source": "acme", "key": "unreadable:1"},
    "revoke-token": {"name": "ann"},
    "pause": {"destination": BUSY.name},
    "resume": {"destination": RESTING.name},
}
WORDS = {"ROLE": "viewer", "WHEN": "90d"}


def prepared(name: str, **more: str) -> ActionPreview:
    return ACTIONS[name].prepare(WHOLE, ASKED.get(name, {}) | more)


@pytest.mark.parametrize("name", ACTIONS)
def test_the_command_of_an_action_is_one_that_the_program_takes(name: str) -> None:
    program, *words = shlex.split(prepared(name).command)
    assert program == "gapless"
    words = [WORDS.get(word, word) for word in words]
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, name
        command = found.load() if isinstance(found, LazyCommand) else found
    command.make_context(name, words)


@pytest.mark.parametrize("name", ACTIONS)
def test_the_arguments_of_an_action_are_those_of_its_operation(name: str) -> None:
    action = ACTIONS[name]
    takes = OPERATIONS[action.operation].request.__struct_fields__
    assert {action.reason, *action.args(ASKED.get(name, {}), NOW)} <= set(takes)


def test_the_button_says_how_many() -> None:
    assert prepared("requeue").verb == "Requeue 14"
    assert prepared("requeue", key="evt_1").verb == "Requeue 1"
    assert prepared("release-held", destination=BUSY.name).verb == "Let 2 go"
    assert prepared("discard", destination=BUSY.name).title == "Discard 14 dead letters"


def test_what_is_not_there_is_not_offered() -> None:
    nothing = report(SOURCE, DESTINATION)
    for name in ("requeue", "release-held", "discard", "discard-held", "acknowledge", "resume"):
        with pytest.raises(NothingToDo):
            ACTIONS[name].prepare(nothing, {"source": "acme", "destination": DESTINATION.name})
