// The page of a report: copy buttons, and the tree of tensors, which is built only where it is opened.
"use strict";

(() => {
    const BATCH = 200;
    const DEEPEST = 24;
    const WAIT = 80;

    const byId = (id) => document.getElementById(id);
    const said = byId("said");
    document.documentElement.classList.add("alive");

    /** An element with a class and text; text never becomes markup. */
    function make(name, className = "", text = "") {
        const element = document.createElement(name);
        if (className) element.className = className;
        if (text !== "") element.textContent = text;
        return element;
    }

    // Copy buttons

    function copyOldWay(text) {
        const field = make("textarea", "unseen");
        field.value = text;
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
            return copyOldWay(text);
        }
    }

    document.addEventListener("click", async (event) => {
        const button = event.target.closest("button.copy");
        if (!button) return;
        const done = await copy(button.dataset.copy);
        button.textContent = done ? "Copied" : "Press Ctrl+C";
        said.textContent = done ? `Copied ${button.dataset.copy}` : "The browser does not allow copying.";
        button.focus();
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });

    // Figures as the rest of the page writes them

    function humanBytes(count) {
        if (count < 999.5) return count === 1 ? "1 byte" : `${count} bytes`;
        let value = count;
        let unit = "bytes";
        for (const next of ["kB", "MB", "GB"]) {
            if (value < 999.5) break;
            value /= 1000;
            unit = next;
        }
        const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
        return `${value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${unit}`;
    }

    const counted = (count) => `${count.toLocaleString("en")} tensor${count === 1 ? "" : "s"}`;

    // The tree

    const tree = byId("tree");
    if (!tree) return;
    const data = JSON.parse(byId("tensor-data").textContent);
    const natural = new Intl.Collator("en", { numeric: true });
    const rows = data.rows.map(([key, type, shape, bytes, part, role, remark]) => ({
        key, shape: `[${shape.join(", ")}]`, bytes, remark,
        type: data.types[type], part: data.parts[part], role: data.roles[role],
    }));
    for (const row of rows) {
        row.words = `${row.key} ${row.type} ${row.shape} ${row.part} ${row.remark}`.toLowerCase();
    }
    const contents = new WeakMap(); // list item → the branch that it shows

    const branch = (name) => ({ name, branches: new Map(), leaves: [], count: 0, bytes: 0, odd: 0 });

    /** All rows below one branch, by the parts of their names between dots. */
    function grow() {
        const root = branch("");
        for (const row of rows) {
            const path = row.key.split(".");
            const last = path.length > DEEPEST ? path.splice(DEEPEST).join(".") : path.pop();
            let here = root;
            const passed = [root];
            for (const part of path) {
                if (!here.branches.has(part)) here.branches.set(part, branch(part));
                here = here.branches.get(part);
                passed.push(here);
            }
            here.leaves.push({ name: last, row });
            for (const one of passed) {
                one.count += 1;
                one.bytes += row.bytes;
                one.odd += row.remark ? 1 : 0;
            }
        }
        return root;
    }

    /** What stands below a branch, branches first, in natural order; a branch with one branch alone is shown as one with it. */
    function below(parent) {
        const found = [];
        for (let one of parent.branches.values()) {
            let name = one.name;
            while (one.branches.size === 1 && !one.leaves.length) {
                one = one.branches.values().next().value;
                name += `.${one.name}`;
            }
            found.push({ ...one, name });
        }
        const inOrder = (entries) => entries.sort((a, b) => natural.compare(a.name, b.name));
        return [...inOrder(found), ...inOrder([...parent.leaves])];
    }

    function leafItem(name, row, level) {
        const item = make("li", "leaf");
        item.setAttribute("role", "treeitem");
        item.setAttribute("aria-level", level);
        const line = make("div", "line");
        const title = make("span", "name");
        title.append(make("span", `dot model-toolkit-role-${row.role}`), make("code", "", name));
        if (row.remark) title.append(make("span", "odd", row.remark));
        line.append(title, make("span", "type", row.type), make("span", "shape", row.shape),
            make("span", "size", humanBytes(row.bytes)));
        line.title = `${row.key}\n${row.part}`;
        item.append(line);
        return item;
    }

    function branchItem(one, level) {
        const item = make("li", "branch");
        item.setAttribute("role", "treeitem");
        item.setAttribute("aria-level", level);
        item.setAttribute("aria-expanded", "false");
        const line = make("div", "line");
        const title = make("span", "name");
        title.append(make("span", "arrow"), make("code", "", one.name));
        if (one.odd) title.append(make("span", "odd", `${one.odd.toLocaleString("en")} odd`));
        line.append(title, make("span", "shape", counted(one.count)), make("span", "size", humanBytes(one.bytes)));
        item.append(line);
        contents.set(item, one);
        return item;
    }

    function moreItem(left, level, next) {
        const item = make("li", "more");
        item.setAttribute("role", "treeitem");
        item.setAttribute("aria-level", level);
        item.append(make("div", "line", `Show ${Math.min(BATCH, left).toLocaleString("en")} more of ${left.toLocaleString("en")}`));
        contents.set(item, next);
        return item;
    }

    /** Put entries into a list, a batch at a time. */
    function fill(list, entries, level, toItem) {
        const items = entries.slice(0, BATCH).map((entry) => toItem(entry, level));
        const rest = entries.slice(BATCH);
        if (rest.length) items.push(moreItem(rest.length, level, () => fill(list, rest, level, toItem)));
        for (const item of items) item.tabIndex = -1;
        list.append(...items);
        return items[0];
    }

    const toItem = (entry, level) => (entry.row ? leafItem(entry.name, entry.row, level) : branchItem(entry, level));
    const isOpen = (item) => item.getAttribute("aria-expanded") === "true";
    const isBranch = (item) => item.hasAttribute("aria-expanded");

    function open(item) {
        if (!item.querySelector(":scope > ul")) {
            const list = make("ul");
            list.setAttribute("role", "group");
            fill(list, below(contents.get(item)), Number(item.getAttribute("aria-level")) + 1, toItem);
            item.append(list);
        }
        item.setAttribute("aria-expanded", "true");
    }

    const close = (item) => item.setAttribute("aria-expanded", "false");

    let current = null;

    function focus(item) {
        if (!item) return;
        if (current) current.tabIndex = -1;
        current = item;
        item.tabIndex = 0;
        item.focus();
    }

    function act(item) {
        if (item.classList.contains("more")) {
            const first = contents.get(item)();
            item.remove();
            focus(first);
        } else if (isBranch(item)) {
            (isOpen(item) ? close : open)(item);
            focus(item);
        } else {
            focus(item);
        }
    }

    const above = (item) => item.parentElement.closest("[role=treeitem]");

    function next(item) {
        if (isOpen(item)) return item.querySelector("[role=treeitem]");
        for (let here = item; here; here = above(here)) {
            if (here.nextElementSibling) return here.nextElementSibling;
        }
        return null;
    }

    function lastInside(item) {
        let here = item;
        while (here && isOpen(here)) here = here.lastElementChild.lastElementChild;
        return here;
    }

    const previous = (item) => (item.previousElementSibling ? lastInside(item.previousElementSibling) : above(item));

    const KEYS = {
        ArrowDown: (item) => focus(next(item)),
        ArrowUp: (item) => focus(previous(item)),
        ArrowRight: (item) => { if (isBranch(item)) { if (isOpen(item)) focus(next(item)); else open(item); } },
        ArrowLeft: (item) => { if (isBranch(item) && isOpen(item)) close(item); else focus(above(item)); },
        Home: () => focus(tree.firstElementChild),
        End: () => focus(lastInside(tree.lastElementChild)),
        Enter: act,
        " ": act,
    };

    tree.addEventListener("keydown", (event) => {
        const item = event.target.closest("[role=treeitem]");
        const does = KEYS[event.key];
        if (!item || !does || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        does(item);
    });

    tree.addEventListener("click", (event) => {
        const line = event.target.closest(".line");
        if (!line || String(getSelection())) return; // a name is being marked, to copy it
        act(line.parentElement);
    });

    // Search

    const search = byId("search");
    const count = byId("count");
    const total = rows.reduce((sum, row) => sum + row.bytes, 0);
    const root = grow();

    function show(words) {
        tree.replaceChildren();
        tree.classList.toggle("found", words.length > 0);
        if (words.length) {
            const matching = rows.filter((row) => words.every((word) => row.words.includes(word)));
            const bytes = matching.reduce((sum, row) => sum + row.bytes, 0);
            count.textContent = `${matching.length.toLocaleString("en")} of ${counted(rows.length)}, ${humanBytes(bytes)}.`;
            fill(tree, matching.map((row) => ({ name: row.key, row })), 1, toItem);
        } else {
            count.textContent = `${counted(rows.length)}, ${humanBytes(total)}.`;
            fill(tree, below(root), 1, toItem);
        }
        current = tree.firstElementChild;
        if (current) current.tabIndex = 0;
    }

    const wanted = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let waiting = 0;
    search.addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => show(wanted()), WAIT);
    });
    search.addEventListener("keydown", (event) => {
        if (event.key === "ArrowDown" && current) {
            event.preventDefault();
            focus(tree.firstElementChild);
        }
    });

    byId("fold").addEventListener("click", () => {
        for (const item of tree.querySelectorAll("[aria-expanded=true]")) close(item);
        const top = current && current.isConnected ? current.closest("#tree > li") : tree.firstElementChild;
        if (current) current.tabIndex = -1;
        current = top;
        if (top) top.tabIndex = 0;
    });
    byId("unfold").addEventListener("click", () => {
        const closed = [...tree.querySelectorAll("[aria-expanded=false]")];
        for (const item of closed.filter((one) => one.offsetParent !== null)) open(item);
    });

    show([]);
})();
