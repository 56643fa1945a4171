// The template's preview: sends the form as it stands, shows what comes back in a sandboxed frame.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("pr-preview");
  if (!box) return;
  const byId = (id) => document.getElementById(id);
  const POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; " +
    "style-src 'unsafe-inline'; img-src https: http: data:; form-action 'none'\">";

  function written(name) {
    const field = document.querySelector(`[name="${name}"]`);
    if (field) return field.value;
    const shown = document.querySelector(`.field-${name} .readonly`);
    return shown ? shown.textContent : "";
  }

  function fail(text) {
    byId("pr-error").textContent = text;
    byId("pr-error").hidden = !text;
  }

  async function render() {
    const form = new FormData();
    for (const part of ["subject", "html", "text"]) form.append(part, written(part));
    form.append("recipient", byId("pr-as").value);
    const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
    try {
      const answer = await fetch(box.dataset.url, {
        method: "POST", body: form, headers: { "X-CSRFToken": token }, credentials: "same-origin",
      });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const shown = await answer.json();
      fail(shown.error);
      if (shown.error) return;
      byId("pr-subject").textContent = `${shown.subject} — to ${shown.to}`;
      byId("pr-html").srcdoc = POLICY + shown.html;
      byId("pr-text").textContent = shown.text;
    } catch (problem) {
      fail(`There is no preview: ${problem.message}`);
    }
  }

  byId("pr-render").addEventListener("click", render);
  for (const button of document.querySelectorAll(".pr-width")) {
    button.addEventListener("click", () => { byId("pr-html").style.maxWidth = button.dataset.width; });
  }
  let timer = 0;
  for (const part of ["subject", "html", "text"]) {
    const field = document.querySelector(`[name="${part}"]`);
    if (field) field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(render, 800); });
  }
  byId("pr-as").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); render(); }
  });
  if (written("subject") || written("html")) render();
});
