// The conversation follows an answer down as it grows, unless its reader has scrolled up.

import { byId, icon } from "./dom.js";

const NEAR = 60;   // pixels from the end which count as the end
const area = byId("scroll");

function isAtBottom() {
  return area.scrollHeight - area.scrollTop - area.clientHeight < NEAR;
}

export function scrollToBottom() {
  area.scrollTo(0, area.scrollHeight);
}

/** Do what changes the conversation's height; who was at the end is at the end afterwards. */
export function following(change) {
  const follow = isAtBottom();   // to be asked before the change
  change();
  if (follow) scrollToBottom();
}

// A button leads to the end, when that is out of sight.
byId("bottom").append(icon("bottom"));
byId("bottom").onclick = scrollToBottom;
area.onscroll = () => {
  byId("bottom").hidden = isAtBottom();
};
