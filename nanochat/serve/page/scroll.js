// The conversation follows an answer down as it grows, unless its reader has scrolled up.

import { byId, icon } from "./dom.js";

const NEAR = 60;   // pixels from the end which count as the end

function isAtBottom() {
  const { scrollHeight, scrollTop, clientHeight } = byId("scroll");
  return scrollHeight - scrollTop - clientHeight < NEAR;
}

export function scrollToBottom() {
  byId("scroll").scrollTo(0, byId("scroll").scrollHeight);
}

/** A button leads to the end, when that is out of sight. */
export function startScroll() {
  const button = byId("bottom");
  button.prepend(icon("bottom"));
  button.onclick = scrollToBottom;
  byId("scroll").onscroll = () => {
    button.hidden = isAtBottom();
  };
}

/** Do what changes the conversation's height; who was at the end is at the end afterwards. */
export function following(change) {
  const follow = isAtBottom();   // to be asked before the change
  change();
  if (follow) scrollToBottom();
}
