package browser

// Scripts that return a line for each thing that is wrong with the page.
const (
	// tooWide finds what a reader would have to scroll sideways for. The link that skips to the content is
	// out of sight until it has the focus.
	tooWide = `(() => {
		const wide = document.documentElement.clientWidth;
		const found = [...document.querySelectorAll("body *:not(.skip)")]
			.filter((e) => e.getBoundingClientRect().right > wide + 0.5 && getComputedStyle(e).position !== "absolute")
			.map((e) => e.nodeName + " " + e.className + " " + e.getBoundingClientRect().right);
		if (document.documentElement.scrollWidth > wide) found.push("the page is " + document.documentElement.scrollWidth);
		return found.join("\n");
	})()`

	// tooFaint finds text whose contrast with what is behind it is less than 4.5 (WCAG 2.2, 1.4.3).
	tooFaint = `(() => {
		const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
		const luminance = (colour) => {
			const [r, g, b] = channels(colour).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
			return 0.2126 * r + 0.7152 * g + 0.0722 * b;
		};
		const ground = (e) => {
			for (; e; e = e.parentElement) {
				const colour = getComputedStyle(e).backgroundColor, alpha = channels(colour)[3];
				if (alpha === undefined || alpha === 1) return colour;
				if (alpha > 0) return "rgb(127, 127, 127)"; // no colour of the page is translucent
			}
			return "rgb(255, 255, 255)";
		};
		const found = new Set();
		const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (texts.nextNode()) {
			const e = texts.currentNode.parentElement;
			if (!texts.currentNode.data.trim() || !e.checkVisibility()) continue;
			const a = luminance(getComputedStyle(e).color), b = luminance(ground(e));
			const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			if (contrast < 4.5) found.add(contrast.toFixed(2) + " " + e.nodeName + " " + e.className + " " + texts.currentNode.data.trim());
		}
		return [...found].join("\n");
	})()`

	// wrongHeadings finds headings that skip a level, and whether there is one of the first.
	wrongHeadings = `(() => {
		const levels = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((h) => Number(h.nodeName[1]));
		const found = levels.filter((l, i) => i > 0 && l > levels[i - 1] + 1).map((l) => "a level is left out before a heading of level " + l);
		if (levels.filter((l) => l === 1).length !== 1) found.push("not one heading of level 1: " + levels);
		return found.join("\n");
	})()`

	// namesTwice finds ids that are not unique, and references to none.
	namesTwice = `(() => {
		const found = [...document.querySelectorAll("[id]")].filter((e) => document.querySelectorAll("#" + e.id).length > 1).map((e) => "twice: " + e.id);
		for (const e of document.querySelectorAll("[aria-labelledby]")) {
			if (!document.getElementById(e.getAttribute("aria-labelledby"))) found.push("names what there is not: " + e.getAttribute("aria-labelledby"));
		}
		return found.join("\n");
	})()`
)
