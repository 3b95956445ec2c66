"use strict";
// Text of models and data sets as nodes: everything is a text node, and formulas become MathML.

const FORMULA = [
  { open: "$$", close: "$$", display: true },
  { open: "\\[", close: "\\]", display: true },
  { open: "\\(", close: "\\)", display: false },
  { open: "$", close: "$", display: false },
];

// The end of the group that opens at `start`, behind its brace; -1 if it is not closed
function groupEnd(text, start) {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "{") depth++;
    else if (text[at] === "}" && --depth === 0) return at + 1;
  }
  return -1;
}

// A dollar is money unless the formula touches both of its dollars and no digit follows
function isFormula(mark, inner, after) {
  if (!inner.trim() || inner.includes("\n\n")) return false;
  return mark.open !== "$" || (!/^\s|\s$/.test(inner) && !/^\d/.test(after) && inner.length < 400);
}

// [{text} | {tex, display, raw}, …]
function parts(text) {
  const found = [];
  let plain = 0, at = 0;
  const push = (end, part) => {
    if (end > plain) found.push({ text: text.slice(plain, end) });
    found.push(part);
  };
  while (at < text.length) {
    let next = -1;
    if (text.startsWith("\\boxed{", at)) {
      next = groupEnd(text, at + 6);
      if (next > 0) push(at, { tex: text.slice(at, next), display: false, raw: text.slice(at, next) });
    } else if (text[at] === "$" || text[at] === "\\") {
      for (const mark of FORMULA) {
        if (!text.startsWith(mark.open, at)) continue;
        const end = text.indexOf(mark.close, at + mark.open.length);
        if (end < 0) continue;
        const inner = text.slice(at + mark.open.length, end), stop = end + mark.close.length;
        if (!isFormula(mark, inner, text.slice(stop, stop + 1))) continue;
        push(at, { tex: inner, display: mark.display, raw: text.slice(at, stop) });
        next = stop;
        break;
      }
      if (next < 0 && text[at] === "\\") { at += 2; continue; }
    }
    if (next > 0) plain = at = next;
    else at++;
  }
  if (plain < text.length) found.push({ text: text.slice(plain) });
  return found;
}

// Replaces the content of an element. What Temml cannot read stays as it was written
function renderText(element, text) {
  element.textContent = "";
  for (const part of parts(text)) {
    if (part.tex === undefined) { element.append(part.text); continue; }
    const span = document.createElement("span");
    try {
      temml.render(part.tex, span, { displayMode: part.display, throwOnError: true, trust: false, maxSize: [20, 50], maxExpand: 200 });
      span.title = part.raw;
      element.append(span);
    } catch (error) {
      element.append(part.raw);
    }
  }
  return element;
}

// The JSON value in an element that holds gzip in base64
async function unpacked(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// <tag class="kind">children</tag>
function made(tag, kind, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
