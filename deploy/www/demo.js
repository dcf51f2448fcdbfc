// Asks for the path of each card and shows what came back, so that a look at the page says whether everything works.
"use strict";

const SHOWN = 600; // characters of an answer

async function ask(card) {
  const result = card.querySelector(".result");
  const answer = card.querySelector("pre");
  try {
    const response = await fetch(card.dataset.path, { cache: "no-store" });
    const text = await response.text();
    show(result, response.ok, `${response.status} ${response.statusText}`);
    answer.textContent = text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
    return response.ok;
  } catch (error) {
    show(result, false, "no answer");
    answer.textContent = String(error);
    return false;
  }
}

function show(result, good, text) {
  result.className = `result ${good ? "good" : "bad"}`;
  result.textContent = `${good ? "✓" : "✗"} ${text}`;
}

function prepare(card) {
  const result = document.createElement("p");
  result.className = "result";
  result.textContent = "asking…";
  const answer = document.createElement("pre");
  answer.tabIndex = 0; // long answers scroll, also by keyboard
  answer.setAttribute("role", "region");
  answer.setAttribute("aria-label", `Answer of ${card.dataset.path}`);
  card.append(result, answer);
}

async function askAll() {
  const cards = [...document.querySelectorAll(".card")];
  const summary = document.getElementById("summary");
  summary.textContent = "Asking each of them…";
  cards.forEach(prepare);
  const results = await Promise.all(cards.map(ask));
  const good = results.filter(Boolean).length;
  const all = good === cards.length;
  summary.className = all ? "good" : "bad";
  summary.textContent = all
    ? `✓ All ${good} of them work.`
    : `✗ ${good} of ${cards.length} work; the server's log says what is wrong with the others.`;
}

askAll();
