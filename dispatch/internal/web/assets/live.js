// What the pages that follow do alike; it comes before the script of each.
"use strict";
const state = document.getElementById("state");

function say(text, live) {
	state.textContent = text;
	state.classList.toggle("on", live);
}

// selected tells whether something in an element is, which must not go then.
function selected(within) {
	const chosen = document.getSelection();
	return chosen && !chosen.isCollapsed && within.contains(chosen.anchorNode);
}

// follow listens to dispatch, and says how that stands.
function follow(url) {
	const source = new EventSource(url);
	source.onopen = () => say("live", true);
	source.addEventListener("gone", () => location.reload());
	source.onerror = () => {
		if (source.readyState === EventSource.CLOSED) { // dispatch has no place, or is away
			say("not live: loading again in a moment", false);
			setTimeout(() => location.reload(), 10000);
		} else {
			say("reconnecting", false);
		}
	};
	return source;
}
