// What the parts of the page share: the chats, what is open, what is running, and one way to draw it all
// anew. A part that changes something here calls redraw(); which parts there are to draw, only main.js knows.

export const state = {
  chat: null,   // the chat that is open
  isRun: false,   // the run is shown instead
  editing: null,   // the message whose editor is open
  notice: null,   // {text, bad, label, act}: what the page says above the message box
  settings: {},   // what the user has chosen; what is not here is the server's default
  model: null,   // the one that answers, as GET /v1/models describes it; null before the server has said
  models: [],   // all of them
};

export const chats = new Map();   // by the chat's id
export const runs = new Map();   // by the chat's id: the answer that is being written there

export const drawers = [];   // functions that redraw() calls

export function redraw() {
  if (!state.chat) return;   // nothing is open yet
  for (const draw of drawers) draw();
}

/** Say something above the message box; `label` and `act` are of a button that goes with it. */
export function tell(text, bad, label, act) {
  state.notice = { text, bad, label, act };
  redraw();
}

/** What holds for "temperature", "top_k" ...: the user's choice, or else the model's default. */
export function setting(name) {
  return state.settings[name] ?? state.model?.defaults[name];
}

/** Tokens of the longest answer that may be asked for: half of what the model reads, so that a question has room. */
export function longestAnswer() {
  return Math.floor((state.model?.max_model_len ?? 2) / 2);
}
