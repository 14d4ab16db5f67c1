// The settings: what the user has chosen, kept in this browser, and the dialog that shows it.

import { byId, element } from "./dom.js";
import { longestAnswer, setting, state } from "./state.js";
import { readStored, writeStored } from "./storage.js";

export const KEY = "nanochat.settings";
export const SAMPLING = ["temperature", "top_k", "top_p", "min_p", "seed"];   // these go with every question
const NUMBERS = [...SAMPLING, "max_tokens"];

const dialog = byId("settings");

/** Change some settings, keep them, and let them show. Another tab may have changed others. */
export function keepSettings(changes) {
  state.settings = { ...state.settings, ...readStored(KEY), ...changes };
  writeStored(KEY, state.settings);
  applySettings();
}

/** Take over what is kept, which another tab may have changed. */
export function readSettings() {
  state.settings = readStored(KEY) ?? {};
  applySettings();
}

/** To be called, too, when the server has said which models there are. */
export function applySettings() {
  const { theme, choice, odds } = state.settings;
  document.documentElement.style.colorScheme = theme ?? "";   // "": as the system
  state.model = state.models.find(model => model.id === choice) ?? state.models[0] ?? null;
  if (state.model) byId("model").textContent = state.model.id.replace(/^nanochat-/, "");
  byId("sure").ariaPressed = !!odds;
}

export function openSettings() {
  for (const id of [...NUMBERS, "system", "theme", "api_key"]) byId(id).value = setting(id) ?? "";
  byId("choice").replaceChildren(...state.models.map(model => element("option", model.id)));
  byId("choice").value = state.model?.id;
  byId("max_tokens").max = longestAnswer();
  byId("max_tokens").value = Math.min(setting("max_tokens"), longestAnswer()) || "";
  byId("room-for").textContent = longestAnswer();
  if (!dialog.open) dialog.showModal();
}

function takeInput({ target }) {
  const { id, value, validity } = target;
  if (!NUMBERS.includes(id)) keepSettings({ [id]: value.trim() });
  else if (validity.valid) keepSettings({ [id]: value ? +value : undefined });   // nothing: the server's default
}

byId("open-settings").onclick = openSettings;
byId("done").onclick = () => dialog.close();
dialog.oninput = takeInput;
dialog.onchange = takeInput;
readSettings();
