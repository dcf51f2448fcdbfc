// Tries each kind of answer and shows it: status, time, and the beginning of the body.
const LONGEST = 600;

async function show(article) {
  const path = article.dataset.try;
  const output = document.createElement("output");
  output.className = "answer";
  output.textContent = "asking…";
  article.append(output);
  const began = performance.now();
  try {
    const response = await fetch(path, { cache: "no-store" });
    const text = await response.text();
    const took = Math.max(1, Math.round(performance.now() - began));
    output.classList.add(response.ok ? "good" : "bad");
    const status = document.createElement("b");
    status.textContent = `${response.ok ? "✓" : "✗"} ${response.status}`;
    const body = document.createElement("pre");
    body.tabIndex = 0;
    body.textContent = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
    output.replaceChildren(status, ` in ${took} ms`, body);
  } catch (error) {
    output.classList.add("bad");
    output.textContent = `✗ no answer: ${error.message}`;
  }
}

for (const article of document.querySelectorAll("[data-try]")) show(article);
