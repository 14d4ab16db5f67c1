// One question to all stages at once: each model is loaded by the server when it is asked.

import { meetModels } from "./answers.js";
import { request, wordsOf } from "./api.js";
import { element, sendOnEnter } from "./dom.js";
import { drawParts } from "./markdown.js";
import { state } from "./state.js";

const LONGEST = 64;   // tokens of an answer

/** A box for the question, and below it a column for each model. */
export function drawCompare() {
  meetModels();   // there is a newer one
  const columns = element("div.models");
  const label = "A question for all stages";
  const box = element("textarea", { rows: 1, dir: "auto", "aria-label": label, placeholder: label });
  const send = () => {
    const text = box.value.trim();
    const models = [...state.models].reverse();   // as they were trained
    if (text) columns.replaceChildren(...models.map(model => drawColumn(model, text)));
  };
  sendOnEnter(box, send);
  const ask = element("button.primary", { onclick: send }, "Ask all");
  return [element("h2", "Side by side"), element("div.edit", box, ask), columns];
}

function drawColumn(model, text) {
  const body = element("div.body.thinking", { dir: "auto" });
  const name = model.id.replace(/^nanochat-/, "");
  answerOf(model, text)
    .then(parts => body.replaceChildren(...drawParts(parts)))
    .catch(error => body.append(element("p.error", wordsOf(error))))
    .finally(() => body.classList.remove("thinking"));
  return element("article", element(`h3.${name}`, name, element("small", model.version)), body);
}

/** The parts of its answer. A model that does not chat goes on with the text. */
async function answerOf({ id, chats }, text) {
  const asked = chats ? { messages: [{ role: "user", content: text }] } : { prompt: text };
  const path = chats ? "v1/chat/completions" : "v1/completions";
  const response = await request(path, { model: id, ...asked, max_tokens: LONGEST, temperature: 0 });
  const [choice] = (await response.json()).choices;
  return choice.message?.parts ?? [{ type: "text", text: text + choice.text }];
}
