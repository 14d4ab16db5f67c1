// From a chat to the request, and from the stream of chunks back to the message: the protocol of
// v1/chat/completions.
//
// A run is an answer that is being written: {message, abort, before, frame, show}. `before` is how many tokens
// it had if it is continued; `show`, set by whoever has drawn the message, draws what has come.

import { eventsOf } from "./api.js";
import { SAMPLING } from "./settings.js";
import { longestAnswer, setting, state } from "./state.js";
import { remembered } from "./tree.js";

/**
 * The request's body. An answer that is to be continued stands last. With `isShort` the answer may take what room
 * there is.
 */
export function requestBody(chat, run, isShort) {
  const messages = [];
  const { system, odds } = state.settings;
  if (system) messages.push({ role: "system", content: system });
  for (const message of remembered(chat)) {
    const { role, content } = message;
    if (content.length) messages.push({ role, content });
    else if (message !== run.message) messages.pop();   // no answer came: two questions in a row confuse a small model
  }
  const longest = setting("max_tokens");
  const body = {
    model: state.model?.id,
    messages,
    max_tokens: isShort || !longest ? undefined : Math.min(longest, longestAnswer()),
    stream: true,
    stream_options: { include_usage: true },
  };
  for (const name of SAMPLING) body[name] = setting(name);
  if (odds) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  return body;
}

/** Read the answer into the run's message. Raises if it breaks off. */
export async function readAnswer(run, response) {
  const { message } = run;
  let note;   // what stands below it in the end
  for await (const data of eventsOf(response)) {
    if (data === "[DONE]") {
      message.note = note;
      return;
    }
    const { error, usage, timings, choices = [] } = JSON.parse(data);
    if (error) throw error;
    const choice = choices[0];   // the last chunk, which has the usage, has none
    if (choice) takeChunk(run, choice);
    if (choice?.finish_reason === "length") note = "Cut at the longest answer allowed.";
    if (usage) {
      message.tokens = run.before + usage.completion_tokens;
      message.used = usage.prompt_tokens + usage.completion_tokens;
      message.speed = timings?.predicted_per_second;   // only the server knows: the network brings many at once
    }
    run.frame ||= requestAnimationFrame(() => {   // chunks may come faster than a screen shows pictures
      run.frame = 0;
      run.show?.();
    });
  }
  throw new TypeError("The connection broke off.");   // as fetch has it: the server was there and is no more
}

function takeChunk({ message, before }, { delta, logprobs }) {
  const { content, parts = [] } = delta;   // `parts` are calls of the calculator and their outputs
  const isWhole = message.odds || !before;   // of a continued answer the first tokens may not be known
  for (const { token, logprob, top_logprobs = [] } of isWhole && logprobs?.content || []) {
    message.odds ??= [];
    message.odds.push([token, logprob, top_logprobs.map(other => [other.token, other.logprob])]);
  }
  const last = message.content.at(-1);
  if (content && last?.type === "text") last.text += content;
  else if (content) message.content.push({ type: "text", text: content });
  message.content.push(...parts);
  if (content || parts.length) message.tokens = (message.tokens ?? 0) + 1;
}
