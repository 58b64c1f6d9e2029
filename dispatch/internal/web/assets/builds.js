// Puts each new list that dispatch sends in the place of the old one. Without
// scripts the page is loaded again now and then.
"use strict";
const box = document.getElementById("live");
let next = null; // a list that waits until nothing is selected in the old one

function show() {
	if (next === null || selected(box)) {
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

const source = follow(box.dataset.events + location.search);
source.onmessage = (event) => {
	next = event.data;
	show();
};
document.addEventListener("selectionchange", show);
