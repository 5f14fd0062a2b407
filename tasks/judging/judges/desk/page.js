// What a key, a click or a tap does. All text comes as JSON and is put in by textContent: it is never read as HTML.
"use strict";

const POLL_MS = 1500;
const place = (id) => document.getElementById(id);
let state = null;      // as the server last told it
let shownAt = 0;
let busy = false;      // a label is on its way: a second key press is not for the next question

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(path, options);
  if (!reply.ok && reply.status !== 409) throw new Error(`status ${reply.status}`);
  return reply.json();
}

async function act(path, body) {
  if (busy) return;
  busy = true;
  try {
    show(await call(path, body));
    say("");
  } catch {
    lost();
  } finally {
    busy = false;
    for (const article of document.querySelectorAll("article")) article.classList.remove("picked");
  }
}

function choose(choice) {
  if (!state || !state.question || busy) return;
  if (choice === "left" || choice === "right") place(choice).closest("article").classList.add("picked");
  act("/label", { key: state.question.key, choice, seconds: (performance.now() - shownAt) / 1000 });
}

const undo = () => state && state.can_undo && act("/undo", {});
const finish = () => state && state.ends_in !== null && act("/finish", {});

function show(next) {
  const before = state && state.question ? state.question.key : null;
  const { question, progress, can_undo } = next;
  state = next;
  place("bar").max = Math.max(progress.total, 1);
  place("bar").value = progress.done;
  place("count").textContent = `${progress.done} of ${progress.total}`;
  place("undo").disabled = !can_undo;
  place("work").hidden = !question;
  place("end").hidden = !!question;
  place("tools").hidden = !question && !can_undo;
  for (const id of ["tie", "skip"]) place(id).hidden = !question;
  if (!question) return showEnd();
  if (question.key === before) return;
  place("instruction").textContent = question.instruction || "Which answer is better?";
  place("prompt").textContent = question.prompt;
  for (const side of ["left", "right"]) {
    place(side).textContent = question[side];
    place(side).scrollTop = 0;
  }
  window.scrollTo(0, 0);
  shownAt = performance.now();
}

function showEnd() {
  const left = Math.ceil(state.ends_in ?? 0);
  place("end-title").textContent = "That is enough, thank you";
  place("end-text").textContent = left > 0 ? `Going on in ${left} s, unless you take the last one back.` : "Going on. You can close this page, or leave it open for the next questions.";
  place("finish").hidden = left <= 0;
}

function lost() {
  if (state && !state.question) {
    state = { ...state, ends_in: 0, can_undo: false };
    show(state);
  } else {
    say("The run does not answer: it has ended, or was stopped. What you have labelled is kept; this page goes on when it does.");
  }
}

function say(text) {
  if (place("news").textContent !== text) place("news").textContent = text;
}

async function poll() {
  if (!busy) {
    try {
      const next = await call("/state");
      if (!busy) {
        show(next);
        say("");
      }
    } catch {
      lost();
    }
  }
  setTimeout(poll, state && state.ends_in !== null ? 500 : POLL_MS);
}

for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => choose(button.dataset.choice));
place("undo").addEventListener("click", undo);
place("finish").addEventListener("click", finish);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const choices = { 1: "left", 2: "right", t: "tie", s: "skip" };
  const key = event.key.toLowerCase();
  if (key in choices) choose(choices[key]);
  else if (key === "u" || key === "backspace") undo();
  else if (key === "enter" && state && !state.question) finish();
  else return;
  event.preventDefault();
});
poll();
