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

document.addEventListener("htmx:after:swap", count);
document.addEventListener("DOMContentLoaded", () => {
  document.documentElement.classList.add("script");
  count();
});
