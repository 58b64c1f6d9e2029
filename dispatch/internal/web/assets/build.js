// Follows a build: its head is replaced when it changes, and the logs grow. What
// is shown was made harmless by dispatch. Without scripts the page is loaded again
// now and then, as long as the build runs.
"use strict";
const main = document.getElementById("build");
const head = document.getElementById("head");
const most = 4 << 20; // characters of a log that the page keeps
let next = null; // a head that waits until nothing in the old one is in use

function show() {
	if (next === null || selected(head) || head.contains(document.activeElement)) {
		return;
	}
	head.innerHTML = next;
	next = null;
	title();
}

function title() {
	const card = head.querySelector("[data-title]");
	if (card) {
		document.title = card.dataset.title + " · Converge";
	}
}

// Log is one of the logs on the page.
class Log {
	constructor(section) {
		this.pre = section.querySelector(".log");
		this.done = section.querySelector(".done");
		this.rest = section.querySelector(".rest");
		this.trouble = section.querySelector(".trouble");
		this.chunks = [];
		this.length = 0;
		this.pre.scrollTop = this.pre.scrollHeight;
	}

	add(piece) {
		const atEnd = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 60;
		if (piece.anew) {
			this.done.textContent = "";
			this.chunks = [];
			this.length = 0;
		}
		if (piece.lines) {
			const chunk = document.createElement("span");
			chunk.innerHTML = piece.lines;
			this.done.append(chunk);
			this.chunks.push(chunk);
			this.length += piece.lines.length;
			while (this.length > most && this.chunks.length > 1) {
				const old = this.chunks.shift();
				this.length -= old.innerHTML.length;
				old.remove();
			}
		}
		this.rest.innerHTML = piece.rest;
		if (piece.trouble) {
			this.trouble.textContent = piece.trouble;
			this.trouble.hidden = false;
		}
		if (atEnd) {
			this.pre.scrollTop = this.pre.scrollHeight;
		}
	}
}

const logs = {};
for (const section of document.querySelectorAll("section[data-log]")) {
	logs[section.dataset.log] = new Log(section);
}

const source = follow(main.dataset.events);
source.addEventListener("head", (event) => {
	next = event.data;
	show();
});
source.addEventListener("log", (event) => {
	const piece = JSON.parse(event.data);
	if (logs[piece.log]) {
		logs[piece.log].add(piece);
	}
});
source.addEventListener("end", () => {
	source.close();
	say("this build is over", false);
});
document.addEventListener("selectionchange", show);
head.addEventListener("focusout", () => setTimeout(show));
