/* What Gradio cannot do for the Toolkit tab: asks how a job goes, searches and folds the tree of tensors, copies,
   opens a report in a page of its own, leads from one panel to another, guards unsaved changes, and tells the host's
   lists of a new file.

   Everything is found anew at each step, since Gradio draws its elements when it likes. A script that is loaded
   again (Reload UI, two copies) puts the one before it out of work. */
(function () {
    "use strict";

    const EVERY = 300; // ms between looks at the page
    const PATIENCE = 3000; // ms after which an unanswered question is asked again
    const TYPING = 120; // ms without a key before a search
    const OPENED = 200; // hits up to which branches unfold by themselves
    const DRAWN = 1500; // ms that Gradio may take to draw a file after the button that opens it
    const PAGES = 4; // opened reports that stay in memory, so that they can be reloaded
    const BARS = ["model_toolkit_progress", "model_toolkit_autoprune_progress"];
    const REFRESHERS = ["refresh_sd_model_checkpoint", "refresh_sd_vae", "forge_refresh_checkpoint"];

    const before = window.modelToolkit;
    if (before) {
        before.stop();
    }
    const ending = new AbortController();
    const memory = before ? before.memory : { saved: [], pages: [] };
    let asked = "";
    let askedAt = 0;

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const own = (selector) => page().querySelector(`#model_toolkit ${selector}`);
    const on = (event, handler) => document.addEventListener(event, handler, { signal: ending.signal });

    /** What of ours an event was about: the nearest element that fits, inside the tab. */
    function target(event, selector) {
        const first = event.composedPath()[0];
        const found = first instanceof Element ? first.closest(selector) : null;
        return found && found.closest("#model_toolkit") ? found : null;
    }

    // Asking how jobs go. The server puts a mark with a step number beside the bar of a job while it runs, and a new
    // number with each answer. Clicking the hidden button sends the next question: no queue, no generator.

    function ask() {
        const marks = Array.from(page().querySelectorAll(BARS.map((id) => `#${id} [data-model-toolkit-step]`).join()));
        if (!marks.length) {
            asked = "";
            return;
        }
        const step = marks.map((mark) => mark.getAttribute("data-model-toolkit-step")).join(" ");
        // What may go on for hours says how often it wants to be asked.
        const pause = Math.min(...marks.map((mark) => Number(mark.getAttribute("data-model-toolkit-every"))));
        const now = Date.now();
        // One question at a time; a lost answer must not stop the asking for good.
        if (now - askedAt < (step === asked ? PATIENCE : pause)) {
            return;
        }
        const button = page().querySelector("#model_toolkit_poll");
        if (button) {
            asked = step;
            askedAt = now;
            button.click();
        }
    }

    // After a save the host's own refresh buttons are pressed, once for each save.

    function refresh() {
        const marks = Array.from(page().querySelectorAll("#model_toolkit [data-model-toolkit-saved]"));
        const saved = marks.map((mark) => mark.getAttribute("data-model-toolkit-saved"));
        const fresh = saved.some((mark) => !memory.saved.includes(mark));
        memory.saved = saved;
        if (fresh) {
            for (const id of REFRESHERS) {
                page().querySelector(`#${id}`)?.click();
            }
        }
    }

    window.addEventListener("beforeunload", (event) => {
        if (own("[data-model-toolkit-unsaved]")) {
            event.preventDefault();
            event.returnValue = "";
        }
    }, { signal: ending.signal });

    // Copying

    function copyOldWay(text) {
        const field = document.createElement("textarea");
        field.value = text;
        field.style.position = "fixed";
        field.style.opacity = "0";
        document.body.append(field);
        field.select();
        const done = document.execCommand("copy");
        field.remove();
        return done;
    }

    async function copy(text) {
        try {
            await navigator.clipboard.writeText(text);
            return true;
        } catch {
            // Not over plain http from another computer, or not allowed.
            return copyOldWay(text);
        }
    }

    /** A sentence for those who hear the page. */
    function say(words) {
        let said = own(".model-toolkit-said");
        if (!said) {
            said = document.createElement("span");
            said.className = "model-toolkit-said";
            said.setAttribute("role", "status");
            page().querySelector("#model_toolkit")?.append(said);
        }
        said.textContent = words;
    }

    async function copied(button, text) {
        const done = await copy(text);
        button.focus();
        button.setAttribute("data-said", done ? "Copied" : "Not allowed");
        say(done ? `Copied ${text}` : "The browser does not allow copying.");
        setTimeout(() => button.removeAttribute("data-said"), 1500);
    }

    // The tree of tensors: the whole name of a row is made of its own and those of the branches around it.

    function wholeName(row) {
        const names = [];
        for (let one = row; one; one = one.parentElement.closest("li[data-name]")) {
            names.unshift(one.getAttribute("data-name"));
        }
        return names.join(".");
    }

    const searched = new WeakMap(); // tree → the rows and branches directly below it

    /** Rows and branches of a list, with the words in which a row is searched. */
    function entries(list, prefix) {
        return Array.from(list.children, (item) => {
            const name = prefix + (item.getAttribute("data-name") ?? "");
            const folder = item.querySelector(":scope > details");
            if (folder) {
                return { item, folder, open: folder.open, inside: entries(folder.lastElementChild, `${name}.`) };
            }
            const facts = Array.from(item.querySelectorAll("span"), (cell) => cell.textContent);
            return { item, words: item.hasAttribute("data-name") ? [name, ...facts].join(" ").toLowerCase() : null };
        });
    }

    /** Marks what fits; gives the number of rows that do. Rows that tell of what is not listed never do. */
    function mark(found, wanted) {
        let hits = 0;
        for (const entry of found) {
            entry.hits = entry.inside
                ? mark(entry.inside, wanted)
                : Number(entry.words !== null && wanted.every((word) => entry.words.includes(word)));
            hits += entry.hits;
        }
        return hits;
    }

    function show(found, unfold) {
        for (const entry of found) {
            entry.item.hidden = !entry.hits;
            if (entry.inside) {
                entry.folder.open = unfold && entry.hits > 0;
                show(entry.inside, unfold);
            }
        }
    }

    /** As it was before the search. */
    function restore(found) {
        for (const entry of found) {
            entry.item.hidden = false;
            if (entry.inside) {
                entry.folder.open = entry.open;
                restore(entry.inside);
            }
        }
    }

    const rowsIn = (found) => found.reduce((sum, one) => sum + (one.inside ? rowsIn(one.inside) : +!!one.words), 0);

    function search(tree, text) {
        const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
        const told = tree.querySelector("[data-told]");
        if (!wanted.length) {
            if (searched.has(tree)) {
                restore(searched.get(tree));
                searched.delete(tree);
            }
            told.textContent = told.getAttribute("data-told");
            return;
        }
        if (!searched.has(tree)) {
            searched.set(tree, entries(tree.querySelector("ul"), ""));
        }
        const found = searched.get(tree);
        const hits = mark(found, wanted);
        show(found, hits <= OPENED);
        const every = rowsIn(found).toLocaleString("en");
        told.textContent = `${hits.toLocaleString("en")} of ${every} listed tensors match.`;
    }

    let typed = 0;
    on("input", (event) => {
        const box = target(event, "#model_toolkit_tensors_search");
        const tree = box?.closest(".model-toolkit-tree");
        if (tree) {
            clearTimeout(typed);
            typed = setTimeout(() => search(tree, box.value), TYPING);
        }
    });

    // A report or a comparison in a page of its own. The page opens within the click, so that it is no pop-up, and is
    // then filled from the file that the tab offers for download in the part that the button names.

    /** Waits for what Gradio has not drawn yet. Most browsers still count the click by then. */
    async function drawn(find) {
        for (const end = Date.now() + DRAWN; !find() && Date.now() < end;) {
            await new Promise((resolve) => { setTimeout(resolve, 50); });
        }
        return find();
    }

    async function openReport(button) {
        const told = button.parentElement.querySelector("[role=status]");
        const part = button.getAttribute("data-model-toolkit-open") || "report_html";
        const find = () => own(`#model_toolkit_${CSS.escape(part)} a[href]`);
        const link = find() ?? await drawn(find);
        const opened = link ? window.open("", "_blank") : null;
        if (!opened) {
            told.textContent = link ? "The browser does not allow new pages here; allow pop-ups, or download the page."
                : "There is nothing to open yet.";
            return;
        }
        opened.opener = null;
        told.textContent = "";
        try {
            const answer = await fetch(link.href);
            if (!answer.ok) {
                throw new Error(String(answer.status));
            }
            const address = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type: "text/html;charset=utf-8" }));
            memory.pages.push(address);
            while (memory.pages.length > PAGES) {
                URL.revokeObjectURL(memory.pages.shift());
            }
            opened.location.replace(address);
        } catch {
            opened.close();
            told.textContent = "The page is not there any more; make it again.";
        }
    }

    /** Shows a panel of the tab by its title: Gradio 3 has plain buttons for tabs, later ones also draw copies of them to measure. */
    function showPanel(title) {
        const buttons = Array.from(page().querySelectorAll("#model_toolkit_tabs button:not([data-model-toolkit-tab])"));
        const found = buttons.filter((button) => button.textContent.trim() === title);
        const shown = found.find((button) => button.getAttribute("role") === "tab") ?? found[0];
        shown?.click();
        shown?.focus();
    }

    on("click", (event) => {
        const button = target(event, "button");
        if (!button) {
            return;
        }
        if (button.hasAttribute("data-model-toolkit-tab")) {
            showPanel(button.getAttribute("data-model-toolkit-tab"));
            return;
        }
        const tree = button.closest(".model-toolkit-tree");
        const text = button.getAttribute("data-model-toolkit-copy");
        if (text !== null) {
            void copied(button, text);
        } else if (button.hasAttribute("data-model-toolkit-open")) {
            void openReport(button);
        } else if (tree && button.hasAttribute("data-model-toolkit-clear")) {
            const box = tree.querySelector("input");
            box.value = "";
            search(tree, "");
            box.focus();
        } else if (tree && button.hasAttribute("data-model-toolkit-fold")) {
            tree.querySelectorAll("details[open]").forEach((folder) => { folder.open = false; });
        } else if (tree && button.parentElement.hasAttribute("data-name")) {
            void copied(button, wholeName(button.parentElement));
        }
    });

    const timer = window.setInterval(() => { ask(); refresh(); }, EVERY);

    window.modelToolkit = {
        memory,
        stop() {
            ending.abort();
            window.clearInterval(timer);
        },
    };
})();
