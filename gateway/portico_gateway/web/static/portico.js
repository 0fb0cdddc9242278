// What the pages gain when scripts run. Each page works without: links are links, forms are forms.
"use strict";

document.documentElement.classList.add("js");

// --- live: one event source a page, quiet while nobody looks, honest when it is cut ---------------------------------

const HIDDEN_MS = 60000; // browsers allow six connections a host: forgotten tabs must not hold them
const CUT_MS = 2500; // a reconnect within this time needs no word

class LiveSource {
  // An EventSource that rests while the page is hidden and starts anew when it is seen again.
  constructor(url) {
    this.url = url;
    this.listeners = [];
    this.ended = false;
    this.source = null;
    this.onVisibility = () => (document.hidden ? this.restLater() : this.wake());
    document.addEventListener("visibilitychange", this.onVisibility);
    this.connect();
  }

  get readyState() {
    return this.ended ? EventSource.CLOSED : EventSource.OPEN; // reconnecting is done here, not by the extension
  }

  connect() {
    const source = (this.source = new EventSource(this.url));
    for (const [name, listener] of this.listeners) source.addEventListener(name, (event) => this.pass(event, listener));
    source.onopen = () => {
      this.tries = 0;
      offline(false, this);
    };
    source.onerror = () => {
      offline(true, this);
      if (source.readyState === EventSource.CLOSED && !this.ended) this.again();
      if (this.onerror) this.onerror(); // the extension ends us when our element is gone
    };
  }

  pass(event, listener) {
    if (event.lastEventId) this.last = event.lastEventId;
    listener(event);
  }

  again() {
    this.tries = Math.min((this.tries || 0) + 1, 5);
    const jitter = 0.5 + Math.random();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ended || document.hidden || this.connect(), 1000 * 2 ** this.tries * jitter);
  }

  restLater() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.source) this.source.close();
      this.source = null;
    }, HIDDEN_MS);
  }

  wake() {
    clearTimeout(this.timer);
    if (this.ended || (this.source && this.source.readyState !== EventSource.CLOSED)) return;
    if (this.last) {
      const url = new URL(this.url, location.href);
      url.searchParams.set("offset", this.last);
      this.url = url.pathname + url.search;
    }
    this.connect();
  }

  addEventListener(name, listener) {
    this.listeners.push([name, listener]);
    if (this.source) this.source.addEventListener(name, (event) => this.pass(event, listener));
  }

  removeEventListener(name, listener) {
    this.listeners = this.listeners.filter(([n, l]) => n !== name || l !== listener);
  }

  close() {
    this.ended = true;
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.onVisibility);
    offline(false, this);
    if (this.source) this.source.close();
  }
}

const cut = new Set();
let cutTimer = 0;

function offline(isCut, source) {
  const banner = document.getElementById("offline");
  if (isCut) cut.add(source);
  else cut.delete(source);
  if (!banner) return;
  if (cut.size === 0) {
    clearTimeout(cutTimer);
    cutTimer = 0;
    banner.hidden = true;
  } else if (!cutTimer) {
    cutTimer = setTimeout(() => (banner.hidden = false), CUT_MS);
  }
}

window.addEventListener("pagehide", () => cut.clear());

if (window.htmx) {
  htmx.createEventSource = (url) => new LiveSource(url);
}

// A fragment that is refused means that the page itself is another one now: the sign-in ended, the tool answers, the
// studio is gone. Loading it again shows the truth; at most once in ten seconds.
document.addEventListener("htmx:responseError", (event) => {
  if (!event.target.closest || !event.target.closest("[data-live]")) return;
  const status = event.detail.xhr.status;
  if (status < 500 && performance.now() > 10000 / 2) location.reload();
});

// What a person opened stays open when the page changes around it; what they type in stays theirs.
if (window.Idiomorph) {
  Idiomorph.defaults.ignoreActiveValue = true;
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
}

// --- times --------------------------------------------------------------------------------------------------------

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

function span(seconds) {
  seconds = Math.max(0, seconds);
  if (seconds < MINUTE) return `${Math.floor(seconds)} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  if (seconds < 2 * DAY) {
    const minutes = Math.floor((seconds % HOUR) / MINUTE);
    return `${Math.floor(seconds / HOUR)} h${minutes ? ` ${minutes} min` : ""}`;
  }
  return `${Math.floor(seconds / DAY)} days`;
}

function ago(passed) {
  if (passed < 45) return "just now";
  if (passed < HOUR) return `${Math.max(1, Math.round(passed / MINUTE))} min ago`;
  if (passed < DAY) return `${Math.floor(passed / HOUR)} h ago`;
  const days = Math.floor(passed / DAY);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tick() {
  const now = Date.now();
  for (const node of document.querySelectorAll("time[datetime]")) {
    const at = Date.parse(node.dateTime);
    if (Number.isNaN(at)) continue;
    const passed = (now - at) / 1000;
    if ("ago" in node.dataset && passed < 14 * DAY) setText(node, ago(passed));
    else if ("left" in node.dataset) setText(node, span(-passed));
    else if ("since" in node.dataset) setText(node, span(passed));
    else if ("at" in node.dataset) setText(node, `at ${absolute.format(at)}`);
    const title = ("left" in node.dataset ? "until " : "") + absolute.format(at);
    if (!("at" in node.dataset) && node.title !== title) node.title = title;
  }
}

tick();
setInterval(tick, document.querySelector("[data-since]") ? 1000 : 10000);
document.addEventListener("htmx:afterSettle", tick);

// --- keyboard and menus ----------------------------------------------------------------------------------------------

function typing(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== except) menu.open = false;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    } else if (event.target.type === "search") {
      event.target.blur();
    }
    return;
  }
  if (typing(event.target) || event.key.length !== 1) return;
  const wanted = document.querySelector(`[data-shortcut="${CSS.escape(event.key)}"]`);
  if (!wanted) return;
  event.preventDefault();
  if (wanted.tagName === "A") wanted.click();
  else {
    wanted.focus();
    wanted.select();
  }
});

document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));

document.addEventListener(
  "toggle",
  (event) => {
    const menu = event.target;
    if (!menu.matches || !menu.matches("details.menu") || !menu.open) return;
    closeMenus(menu);
    const field = menu.querySelector("input:not([type=hidden])");
    if (field) field.select();
    const list = menu.querySelector(".menu-list");
    list.classList.remove("up");
    const box = list.getBoundingClientRect();
    if (box.bottom > innerHeight && menu.getBoundingClientRect().top > box.height) list.classList.add("up");
  },
  true,
);

// --- copying --------------------------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const word = button.querySelector("span") || button;
  const before = word.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    word.textContent = "Copied";
  } catch {
    word.textContent = "Press Ctrl-C";
    const field = button.parentElement.querySelector("input[readonly]");
    if (field) field.select();
  }
  setTimeout(() => (word.textContent = before), 1500);
});

// --- the log follows its end while its reader is there ----------------------------------------------------------------

const LOG_PIECES = 2000;

function atEnd(log) {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 48;
}

for (const log of document.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;
document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (event.target.matches("[data-follow]")) event.target.dataset.end = atEnd(event.target) ? "yes" : "";
});
document.addEventListener("htmx:sseMessage", (event) => {
  const log = event.target;
  if (!log.matches("[data-follow]")) return;
  while (log.childNodes.length > LOG_PIECES) log.firstChild.remove();
  if (log.dataset.end) log.scrollTop = log.scrollHeight;
});
document.addEventListener("htmx:afterSettle", (event) => {
  for (const log of event.target.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;
});
