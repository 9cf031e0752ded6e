-- The rights of each role of Gapless on PostgreSQL. Run it as the owner of the database, connected to it, after every
-- `gapless db upgrade`:
--
--     psql --set ON_ERROR_STOP=1 --file docs/postgres-roles.sql gapless
--
-- Then make a login for each process, such as: CREATE ROLE gapless_receiver LOGIN PASSWORD '…' IN ROLE gapless_receive;
-- and start it with that login in its store url: gapless serve --role receive. `gapless db upgrade` needs the owner.
--
-- No role is a superuser, makes tables, or changes the schema. The receiver and the reconciler write payloads and
-- cannot read them. What was refused (the quarantine) is read by them: the receiver to bound it, the reconciler to tell
-- why an event was missed.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['gapless_receive', 'gapless_reconcile', 'gapless_deliver', 'gapless_console'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public
    FROM PUBLIC, gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;
GRANT USAGE ON SCHEMA public TO gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public
    TO gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;

-- What all roles share: identities, counts, progress and states, and no content.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public
    TO gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;
REVOKE ALL ON payload, quarantine, audit_log, token, approval, console_session, performed, alembic_version
    FROM gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;
GRANT SELECT ON alembic_version TO gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;

-- Who may do what: `gapless token` makes tokens as the owner.
GRANT SELECT ON token TO gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;
GRANT SELECT, INSERT, UPDATE, DELETE ON approval, console_session, performed TO gapless_console;

-- The audit log only grows. With `retention.audit_log`, also: GRANT DELETE ON audit_log TO gapless_deliver;
GRANT SELECT, INSERT ON audit_log TO gapless_receive, gapless_reconcile, gapless_deliver, gapless_console;

-- Payloads: written by who records, read by who delivers and by people, pruned by who delivers.
GRANT INSERT ON payload TO gapless_receive, gapless_reconcile, gapless_console;
GRANT SELECT ON payload TO gapless_deliver, gapless_console;
GRANT DELETE ON payload TO gapless_deliver;
-- Which keys rows need ([encryption]).
GRANT SELECT (id, sealed_by) ON payload TO gapless_receive, gapless_reconcile;
-- `gapless keys rotate` and `gapless event erase` change what is stored: run them with the owner's login. To erase by
-- the API, also: GRANT UPDATE, DELETE ON payload, quarantine TO gapless_console;

-- Secrets that vendors tell in a handshake, sealed for the command that waits for one.
REVOKE ALL ON handshake FROM gapless_reconcile, gapless_deliver;

-- What destinations answered stands in attempts.
REVOKE ALL ON attempt FROM gapless_receive, gapless_reconcile;

-- Refused webhooks.
GRANT SELECT, INSERT, UPDATE, DELETE ON quarantine TO gapless_receive;
GRANT SELECT ON quarantine TO gapless_reconcile;
GRANT SELECT (id, source_id, received_us, reason, released_us, purged_us, claims, sealed_by) ON quarantine TO gapless_deliver;
GRANT UPDATE (purged_us, headers, body, sealed_by), DELETE ON quarantine TO gapless_deliver;
GRANT SELECT, UPDATE ON quarantine TO gapless_console;
