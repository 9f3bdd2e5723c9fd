"use strict";
// Pages work without this file. It adds: live regions, a count of what is selected, copying, keys.

const etags = new WeakMap();

document.addEventListener("htmx:config:request", (event) => {
  const { ctx } = event.detail;
  const region = ctx.sourceElement;
  if (document.hidden || document.querySelector("#live :focus-within:is(input[type=text])")) {
    event.preventDefault();
    return;
  }
  if (etags.has(region)) ctx.request.headers["If-None-Match"] = etags.get(region);
});

document.addEventListener("htmx:before:response", (event) => {
  const { ctx } = event.detail;
  if (ctx.response.status === 200) etags.set(ctx.sourceElement, ctx.response.headers.get("etag"));
  if (ctx.response.status >= 400) event.preventDefault();
});

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
