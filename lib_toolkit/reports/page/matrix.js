/* Says which two models the pointer is on in a heat map, and how far apart they are. The page works without it. */
"use strict";

(function () {
    function place(event, heat) {
        const box = heat.getBoundingClientRect();
        const view = heat.viewBox.baseVal;
        const size = Number(heat.dataset.cell);
        const x = view.x + ((event.clientX - box.left) / box.width) * view.width - Number(heat.dataset.left);
        const y = view.y + ((event.clientY - box.top) / box.height) * view.height - Number(heat.dataset.top);
        return [Math.floor(y / size), Math.floor(x / size)];
    }

    for (const heat of document.querySelectorAll("svg[data-heat]")) {
        const data = JSON.parse(document.getElementById(heat.dataset.heat).textContent);
        const said = document.getElementById(heat.dataset.heat + "-said");
        heat.addEventListener("pointermove", function (event) {
            const [row, column] = place(event, heat);
            const inside = row >= 0 && column >= 0 && row < data.names.length && column < data.names.length;
            if (!inside) {
                said.textContent = said.dataset.idle;
                return;
            }
            const value = data.rows[Math.max(row, column)][Math.min(row, column)];
            const apart = row === column ? "the model itself" : value === null ? "not comparable" : value;
            said.textContent = data.names[row] + " ↔ " + data.names[column] + ": " + apart;
        });
    }
})();
