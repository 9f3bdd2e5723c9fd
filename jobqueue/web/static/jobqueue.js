"use strict";
// Pages work without this file. It adds: live regions, a count of what is selected, copying, keys.

const etags = new WeakMap();
let fresh = Date.now();

document.addEventListener("htmx:config:request", (event) => {
  const { ctx } = event.detail;
  if (document.hidden) event.preventDefault();
  const etag = etags.get(ctx.sourceElement);
  if (etag) ctx.request.headers["If-None-Match"] = etag;
});

document.addEventListener("htmx:before:response", (event) => {
  const { ctx } = event.detail;
  if (ctx.response.status === 401) location.reload(); // The login is over.
  if (ctx.response.status >= 400) {
    event.preventDefault();
    stale();
    return;
  }
  fresh = Date.now();
  stale(false);
  if (ctx.response.status === 200) etags.set(ctx.sourceElement, ctx.response.headers.get("etag"));
});

document.addEventListener("htmx:error", () => stale());

// Greys a picture that is old, and says how old. Its last answer stays.
function stale(is = true) {
  const age = document.getElementById("age");
  document.documentElement.classList.toggle("stale", is);
  age.hidden = !is;
  if (is) age.textContent = `No answer from the server or its database: this is from ${span(Date.now() - fresh)} ago.`;
}

function span(milliseconds) {
  const seconds = Math.max(0, milliseconds / 1000);
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]].find(([size]) => seconds >= size * 0.98) ?? [1, "s"];
  return `${Math.floor(seconds / size + 0.02)}${unit}`;
}

// Times go on between two answers, in the words of the server.
setInterval(() => {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time:not([data-kept])")) {
    const ago = Date.now() - Date.parse(time.dateTime);
    const text = Math.abs(ago) < 1000 ? "now" : ago > 0 ? `${span(ago)} ago` : `in ${span(-ago)}`;
    if (time.textContent !== text) time.textContent = text;
  }
}, 1000);

function count() {
  const label = document.querySelector("[data-count]");
  if (!label) return;
  const boxes = [...document.querySelectorAll("input[name=id]")];
  const checked = boxes.filter((box) => box.checked).length;
  label.textContent = checked ? `${checked} selected` : "Selected";
  const all = document.querySelector("[data-all]");
  all.checked = checked > 0 && checked === boxes.length;
  all.indeterminate = checked > 0 && checked < boxes.length;
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) {
    for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
  }
  count();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  event.preventDefault();
  const from = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(from.dataset.text || from.textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// Keys. The current line is kept by its id, since a line may be drawn anew.
let current = null;
let isAfterG = false;

function mark(row) {
  for (const other of document.querySelectorAll("tr.at")) other.classList.remove("at");
  current = row?.id ?? current;
  if (!row) return;
  row.classList.add("at");
  row.scrollIntoView({ block: "nearest" });
}

function move(by) {
  const rows = [...document.querySelectorAll("tbody tr[id]")];
  const at = rows.findIndex((row) => row.id === current);
  mark(rows[Math.min(rows.length - 1, Math.max(0, at + by))]);
}

const keys = {
  j: () => move(1),
  k: () => move(-1),
  x: () => document.getElementById(current)?.querySelector("input[name=id]")?.click(),
  Enter: () => document.getElementById(current)?.querySelector("a")?.click(),
  "?": () => document.getElementById("keys").showModal(),
  "/": () => {
    const field = document.getElementById("q");
    if (field) field.focus();
    else document.querySelector("nav [data-key=j]").click();
  },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  // A closed dialog's button may get one key more, until the browser moves the focus.
  if (event.key === "Enter" && event.target.matches("a, button, summary") && !event.target.closest("dialog")) return;
  const act = isAfterG ? () => document.querySelector(`nav [data-key="${CSS.escape(event.key)}"]`)?.click() : keys[event.key];
  isAfterG = !isAfterG && event.key === "g";
  if (!act) return;
  event.preventDefault();
  act();
});

document.addEventListener("htmx:after:swap", () => {
  count();
  mark(document.getElementById(current));
});
document.addEventListener("DOMContentLoaded", () => {
  document.documentElement.classList.add("script");
  count();
});
