// Curves over steps, drawn as SVG, the steps on a logarithmic axis. The values under the pointer, or where the
// arrow keys have led, are told above the curves, at a place of their own: nothing moves.

import { element } from "./dom.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [46, 12, 10, 24];   // pixels around the curves
const NEAR = 12;   // pixels
const SMOOTH = 50;   // a curve is the mean over a 50th of its points to either side

/** {figure, show}: show(series) draws [{name, points, dots}, ...], both lists of [step, value]. */
export function chart(title, unit, height, isLog) {
  const told = element("output");
  const svg = element("svg.chart", { tabindex: 0, role: "img" });
  const figure = element("figure", { hidden: "" }, element("figcaption", element("b", title), ` ${unit}`, told), svg);
  let curves = [];   // {name, places}, each of these [step, value, x, y]
  let at;   // the x that is told of; undefined: the end

  const tell = x => {
    at = x;
    const away = ([, , place]) => Math.abs(place - (x ?? 1e6));
    const found = curves.map(({ name, places }) => [name, places.reduce((a, b) => away(b) < away(a) ? b : a)]);
    const near = found.filter(([, place]) => x === undefined || away(place) < NEAR);
    const step = x !== undefined && near.length ? [`step ${near[0][1][0]}`] : [];
    told.textContent = [...step, ...near.map(([name, place]) => `${name} ${short(place[1])}`)].join(" · ");
    svg.lastChild?.setAttribute("d", x === undefined ? "" : `M${x} ${TOP}V${height - BOTTOM}`);
  };
  svg.onpointermove = ({ offsetX }) => tell(offsetX);
  svg.onpointerleave = svg.onblur = () => tell();
  svg.onkeydown = ({ key }) => {
    const by = { ArrowLeft: -8, ArrowRight: 8 }[key];
    if (by) tell(Math.min(svg.clientWidth - RIGHT, Math.max(LEFT, (at ?? svg.clientWidth) + by)));
  };

  const show = series => {
    const known = series.filter(({ points, dots }) => points.length + dots.length)
      .map(one => ({ ...one, mean: smooth(one.points) }));
    figure.hidden = !known.length;
    if (!known.length) return;
    const width = svg.clientWidth || 600;
    const all = known.flatMap(({ mean, dots }) => [...mean, ...dots]);
    const values = all.map(([, value]) => value);
    const most = Math.max(...values) || 1;
    const across = scale(1, Math.max(2, ...all.map(([step]) => step)), LEFT, width - RIGHT, true);
    const up = scale(isLog ? Math.min(...values) * 0.9 : 0, most * 1.1, height - BOTTOM, TOP, isLog);
    const placed = points => points.map(([step, value]) => [step, value, across(step), up(value)]);
    curves = known.map(({ name, mean, dots }) => ({ name, places: placed(mean.length ? mean : dots) }));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.ariaLabel = `${title}: ${curves.map(inWords).join("; ")}. The arrow keys go along.`;
    svg.replaceChildren(
      path("grid", up.ticks.map(tick => `M${LEFT} ${up(tick)}H${width - RIGHT}`)),
      ...up.ticks.map(tick => element("text", { x: LEFT - 8, y: up(tick) + 4 }, short(tick))),
      ...across.ticks.map(tick => element("text", { x: across(tick), y: height - 6, class: "step" }, short(tick))),
      ...known.flatMap(({ name, points, mean, dots }) => [
        path(`raw ${name}`, line(placed(points))),
        path(name, line(placed(mean))),
        path(`dots ${name}`, placed(dots).map(([, , x, y]) => `M${x} ${y}h.01`)),
      ]),
      path("at", []));
    tell(at);
  };
  return { figure, show };
}

/** A function from values to pixels, and which of the values to name. */
function scale(low, high, from, to, isLog) {
  const into = isLog ? Math.log : value => value;
  const perValue = (to - from) / (into(high) - into(low));
  const place = value => +(from + (into(value) - into(low)) * perValue).toFixed(1);
  place.ticks = isLog ? decades(low, high) : [0, high / 2.2, high / 1.1];
  return place;
}

/** 1, 2, 5, 10, ... between two numbers; of many the tens alone. */
function decades(low, high) {
  const found = [];
  for (let ten = 10 ** Math.floor(Math.log10(low)); ten <= high; ten *= 10) found.push(ten, 2 * ten, 5 * ten);
  const few = found.length > 9 ? found.filter((_, index) => index % 3 === 0) : found;
  return few.filter(tick => tick >= low && tick <= high);
}

function path(name, parts) {
  return element("path", { class: name, d: parts.join("") });
}

function line(places) {
  return places.map(([, , x, y], index) => `${index ? "L" : "M"}${x} ${y}`);
}

function smooth(points) {
  const reach = Math.floor(points.length / SMOOTH);
  const sums = [0];   // before each
  for (const [, value] of points) sums.push(sums.at(-1) + value);
  return points.map(([step], index) => {
    const from = index - Math.min(reach, index);
    const to = Math.min(2 * index - from + 1, points.length);   // the end is a mean, too
    return [step, (sums[to] - sums[from]) / (to - from)];
  });
}

/** For those who do not see it. */
function inWords({ name, places }) {
  const [[first, from], [last, to]] = [places[0], places.at(-1)];
  return `${name} ${short(from)} at step ${first}, ${short(to)} at step ${last}`;
}

function short(value) {
  return value < 1e4 ? String(+value.toPrecision(3)) : `${+(value / 1000).toPrecision(3)}k`;
}
