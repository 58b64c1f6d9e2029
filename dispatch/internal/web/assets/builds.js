// Puts each new list that dispatch sends in the place of the old one. Without
// scripts the page is loaded again now and then.
"use strict";
const box = document.getElementById("live");
const state = document.getElementById("state");
let next = null; // a list that waits until nothing is selected in the old one

function show() {
	const chosen = document.getSelection();
	if (next === null || (chosen && !chosen.isCollapsed && box.contains(chosen.anchorNode))) {
		return;
	}
	const at = document.activeElement;
	const focused = at && box.contains(at) ? at.getAttribute("href") : null;
	box.innerHTML = next;
	next = null;
	if (focused) {
		for (const link of box.querySelectorAll("a")) {
			if (link.getAttribute("href") === focused) {
				link.focus({preventScroll: true});
				break;
			}
		}
	}
}

function say(text, live) {
	state.textContent = text;
	state.classList.toggle("on", live);
}

const source = new EventSource(box.dataset.events + location.search);
source.onopen = () => say("live", true);
source.onmessage = (event) => {
	next = event.data;
	show();
};
source.addEventListener("gone", () => location.reload());
source.onerror = () => {
	if (source.readyState === EventSource.CLOSED) { // dispatch has no place, or is away
		say("not live: loading again in a moment", false);
		setTimeout(() => location.reload(), 10000);
	} else {
		say("reconnecting", false);
	}
};
document.addEventListener("selectionchange", show);
