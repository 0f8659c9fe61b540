// Keeps the page up to date: fetches it again, and changes in the one that is shown what differs. So
// focus, selection and scrolling stay. XMLHttpRequest gives a document that was parsed without running
// anything, and the page's policy (trusted-types 'none') forbids every other way to make HTML of text.
"use strict";

const interval = 2000, limit = 5000; // milliseconds

let answered = Date.now();

function fetchPage(then) {
  const request = new XMLHttpRequest();
  request.open("GET", "./");
  request.responseType = "document";
  request.timeout = limit;
  request.onloadend = () => then(request.status === 200 ? request.response : null);
  request.send();
}

// become changes a node into one like another, and returns nothing.
function become(shown, wanted) {
  if (shown.nodeName !== wanted.nodeName) {
    shown.replaceWith(document.importNode(wanted, true));
    return;
  }
  if (shown.nodeType === Node.TEXT_NODE) {
    if (shown.data !== wanted.data) shown.data = wanted.data;
    return;
  }
  if (shown.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name } of [...shown.attributes]) {
    if (!wanted.hasAttribute(name)) shown.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  const before = [...shown.childNodes], now = [...wanted.childNodes];
  now.forEach((child, i) => {
    if (i < before.length) become(before[i], child);
    else shown.append(document.importNode(child, true));
  });
  before.slice(now.length).forEach((child) => child.remove());
}

function show(page) {
  const stale = document.getElementById("stale");
  if (page && page.getElementById("main")) {
    answered = Date.now();
    stale.hidden = true;
    document.body.classList.remove("stale");
    page.getElementById("refresh").textContent = "; it updates itself.";
    document.title = page.title;
    for (const id of ["top", "main"]) become(document.getElementById(id), page.getElementById(id));
  } else if (stale.hidden) {
    stale.textContent = "weftd does not answer since " + new Date(answered).toLocaleTimeString() +
      ". The page shows what it said last.";
    stale.hidden = false;
    document.body.classList.add("stale");
  }
  setTimeout(refresh, interval);
}

function refresh() {
  if (document.hidden) { // a page in the background asks for nothing
    document.addEventListener("visibilitychange", refresh, { once: true });
    return;
  }
  fetchPage(show);
}

refresh();
