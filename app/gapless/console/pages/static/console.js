// What every page shares. Pages work without it: each action has a page of its own, times stand in UTC.
const $ = (query, root = document) => root.querySelector(query);
const $$ = (query, root = document) => [...root.querySelectorAll(query)];
const store = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* private window: forget */ } },
};
const TOAST_MS = 6000;

export function toast(text) {
  const note = document.createElement("p");
  note.className = "toast";
  note.textContent = text;
  $(".toasts")?.append(note);
  setTimeout(() => note.remove(), TOAST_MS);
}
$$(".toasts .toast").forEach((note) => setTimeout(() => note.remove(), TOAST_MS));

// What only works with a script is hidden until it runs
$$("[data-zone], [data-open], [data-copy]").forEach((element) => { element.hidden = false; });

// An action opens as a dialog: the form of its own page
const dialog = $("#action");
async function openAction(link) {
  let answer;
  try { answer = await fetch(link.href, { redirect: "error" }); } catch { answer = null; }
  if (!answer?.ok) { location.href = link.href; return; }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const form = $("form[data-confirm]", page);
  if (!form) { location.href = link.href; return; }
  dialog.replaceChildren(form);
  dialog.setAttribute("aria-labelledby", $("h2", form).id);
  $$("[data-copy]", dialog).forEach((element) => { element.hidden = false; });
  followReason(form);
  dialog.showModal();
  ($("input[type=text], select, textarea", form) ?? $("button", form))?.focus();
  dialog.addEventListener("close", () => link.focus(), { once: true });
}

document.addEventListener("click", async (event) => {
  const { target } = event;
  const action = target.closest("a[data-action]");
  if (action && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); openAction(action); }
  const opener = target.closest("[data-open]");
  if (opener) document.getElementById(opener.dataset.open)?.showModal();
  const closer = target.closest("[data-close]");
  if (closer && closer.closest("dialog")) { event.preventDefault(); closer.closest("dialog").close(); }
  const copier = target.closest("[data-copy]");
  if (copier) {
    const text = copier.dataset.copy || $("code", copier.parentElement).textContent;
    try { await navigator.clipboard.writeText(text); toast("Copied."); } catch { toast("The browser does not allow copying here."); }
  }
});

// The command follows what is written into the form
function followReason(form) {
  const code = $("code", form);
  const written = code?.textContent;
  if (!written) return;
  const follow = () => {
    let text = written;
    for (const field of $$("[data-word]", form)) {
      const value = field.value.replaceAll(/(["\\$`])/g, "\\$1");
      text = text.replaceAll(field.dataset.word, () => value || field.dataset.word);
    }
    code.textContent = text;
  };
  form.addEventListener("input", follow);
  follow();
}
$$("form[data-confirm]").forEach(followReason);

// Times: every <time> stands in UTC; the button (or u) shows the same moments in the zone of this browser
const zone = $("[data-zone]");
function showZone(local, root = document) {
  for (const element of $$("time[datetime]", root)) {
    element.dataset.utc ??= element.textContent;
    const moment = new Date(element.dateTime);
    const date = moment.toLocaleDateString("sv");
    const here = "date" in element.dataset ? date
      : `${element.dataset.utc.length > 8 ? `${date} ` : ""}${moment.toLocaleTimeString("sv")}`;
    element.textContent = local ? here : element.dataset.utc;
  }
  if (zone) {
    zone.textContent = local ? Intl.DateTimeFormat().resolvedOptions().timeZone : "UTC";
    zone.setAttribute("aria-pressed", String(local));
  }
  store.set("zone", local ? "local" : "utc");
}
const isLocal = () => store.get("zone") === "local";
zone?.addEventListener("click", () => showZone(!isLocal()));
if (isLocal()) showZone(true);

// Pages that change by themselves are read again, unless something in them has the focus or is open
const main = $("main");
const every = Number(main?.dataset.refresh ?? 0);
if (every) {
  setInterval(async () => {
    const isBusy = document.hidden || main.contains(document.activeElement) && document.activeElement !== main;
    if (isBusy || $("dialog[open]") || $("details[open]", main)) return;
    let answer;
    try { answer = await fetch(location.href, { redirect: "error" }); } catch { answer = null; }
    if (!answer?.ok) { main.setAttribute("data-stale", ""); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    main.replaceChildren(...$("main", fresh).childNodes);
    main.removeAttribute("data-stale");
    if (!$("main", fresh).dataset.refresh) location.reload();
    document.title = fresh.title;
    $(".foot span")?.replaceWith($(".foot span", fresh));
    $("link[rel=icon]").href = $("link[rel=icon]", fresh).getAttribute("href");
    if (isLocal()) showZone(true);
  }, every * 1000);
}

// Keyboard: single keys, off while typing, and can be switched off for good
const keysOn = $("[data-keys]");
if (keysOn) {
  keysOn.checked = store.get("keys") !== "off";
  keysOn.addEventListener("change", () => store.set("keys", keysOn.checked ? "on" : "off"));
}
const PAGES = { o: "/", l: "/live", e: "/events", m: "/missed", p: "/passes", d: "/dead-letters" };
const GO_WITHIN_MS = 1200;
let went = -GO_WITHIN_MS;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || keysOn?.checked === false) return;
  if (event.key === "g") { went = event.timeStamp; return; }
  if (event.timeStamp - went < GO_WITHIN_MS && PAGES[event.key]) { location.href = PAGES[event.key]; return; }
  if (event.key === "/") { event.preventDefault(); $("#q")?.focus(); }
  if (event.key === "?") $("#keys")?.showModal();
  if (event.key === "u" && zone) zone.click();
  if (event.key === "j" || event.key === "k") moveRow(event.key === "j" ? 1 : -1);
});
function moveRow(step) {
  const rows = $$("table[data-rows] tbody tr").filter((row) => $("a", row));
  if (!rows.length) return;
  const from = rows.findIndex((row) => row.contains(document.activeElement));
  const next = from < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, from + step));
  rows.forEach((row, index) => row.classList.toggle("on", index === next));
  $("a", rows[next]).focus();
}
