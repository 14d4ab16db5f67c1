// From a chat to the request, and from the stream of chunks back to the message: the protocol of
// v1/chat/completions.
//
// A run is an answer that is being written: {message, abort, began, frame, show}. `show`, set by whoever has
// drawn the message, draws what has come.

import { eventsOf } from "./api.js";
import { probabilities, setting, state } from "./state.js";
import { remembered } from "./tree.js";

/** The request's body. A question that was never answered is left out: two in a row confuse a small model. */
export function requestBody(chat, run) {
  const messages = [];
  const given = remembered(chat);
  for (const [index, message] of given.entries()) {
    const answer = message.role === "user" ? given[index + 1] : message;
    const counts = answer === run.message || answer.content.length > 0;
    if (counts && message !== run.message) messages.push({ role: message.role, content: message.content });
  }
  const body = {
    model: state.model?.id,
    messages,
    temperature: setting("temperature"),
    top_k: setting("top_k"),
    max_tokens: setting("max_tokens"),
    stream: true,
    stream_options: { include_usage: true },
  };
  if (state.settings.odds) {
    body.logprobs = true;
    body.top_logprobs = 5;
  }
  return JSON.stringify(body);
}

/** Read the answer into the run's message; `note` stands below it in the end. Raises if it breaks off. */
export async function readAnswer(run, response, note) {
  const { message } = run;
  for await (const data of eventsOf(response)) {
    if (data === "[DONE]") {
      message.note = note;
      return;
    }
    const { error, usage, choices = [] } = JSON.parse(data);
    if (error) throw error;
    const choice = choices[0];   // the last chunk, which has the usage, has none
    if (choice) takeChunk(run, choice);
    if (choice?.finish_reason === "length") note = "Cut at the longest answer allowed.";
    if (usage) {
      message.tokens = usage.completion_tokens;
      message.used = usage.prompt_tokens + usage.completion_tokens;
    }
    run.frame ||= requestAnimationFrame(() => {   // chunks may come faster than a screen shows pictures
      run.frame = 0;
      run.show?.();
    });
  }
  throw new TypeError("The connection broke off.");   // as fetch has it: the server was there and is no more
}

function takeChunk(run, { delta, logprobs }) {
  const { content, parts = [] } = delta;   // `parts` are calls of the calculator and their outputs
  const { message } = run;
  takeProbabilities(message, logprobs?.content ?? [], parts);
  const last = message.content.at(-1);
  if (content && last?.type === "text") last.text += content;
  else if (content) message.content.push({ type: "text", text: content });
  message.content.push(...parts);
  if (!content && !parts.length) return;
  const now = performance.now();
  run.began ??= now;   // the speed is counted from the first token: the wait before it is the prompt's
  message.tokens = (message.tokens ?? 0) + 1;
  message.seconds = (now - run.began) / 1000;
}

function takeProbabilities(message, tokens, parts) {
  if (!tokens.length && !probabilities.has(message)) return;
  const before = probabilities.get(message) ?? callsAsTokens(message.content);
  probabilities.set(message, [...before, ...tokens, ...callsAsTokens(parts)]);
}

/** Calls have no probabilities of their own; among the tokens they stand as certain. */
function callsAsTokens(parts) {
  const calls = parts.filter(part => part.type !== "text");
  return calls.map(part => ({ token: `[${part.text}]`, logprob: 0 }));
}
