
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", number = head.classList.contains("n");
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!number) return x.localeCompare(y, undefined, {numeric: true});
      return (x === "") - (y === "") || parseFloat(x) - parseFloat(y);
    };
    body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
  }));
  const search = table.closest(".table").querySelector("input[type=search]");
  if (search) search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
}
if ("DecompressionStream" in window) for (const link of document.querySelectorAll("a[download$='.csv.gz']")) {
  link.addEventListener("click", async event => {
    event.preventDefault();
    const packed = await (await fetch(link.href)).blob(), plain = document.createElement("a");
    const text = new Response(packed.stream().pipeThrough(new DecompressionStream("gzip")));
    plain.href = URL.createObjectURL(await text.blob());
    plain.download = link.download.slice(0, -".gz".length);
    plain.click();
  });
}
for (const figure of document.querySelectorAll("figure")) {
  const drawn = figure.querySelector("svg"), png = figure.querySelector("a[download$='.png']");
  if (!drawn || !png) continue;
  const link = document.createElement("a");
  link.textContent = "SVG";
  link.href = "#";
  link.download = png.download.replace(/png$/, "svg");
  link.addEventListener("click", () => {  // the drawing is in the page already
    const text = new XMLSerializer().serializeToString(drawn);
    link.href = URL.createObjectURL(new Blob([text], {type: "image/svg+xml"}));
  });
  png.before(link, " ");
}
