// Draws every figure of the page in the page's own colours, and again when the reader's colour scheme changes.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = (own) => ({
    gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"),
    automargin: true, fixedrange: false, ...own,
    title: { ...own?.title, standoff: 12 },
  });
  const layout = (own, narrow) => ({
    ...own,
    autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--text") },
    margin: { l: 48, r: 12, t: 48, b: 40 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--soft") },
    hovermode: "closest",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") }, align: "left" },
    showlegend: own.showlegend ?? true,
    legend: { orientation: "h", x: 0, y: -0.2, yref: "container", yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", ...own.legend },
    xaxis: axis(own.xaxis),
    yaxis: axis(own.yaxis),
    // Buttons in a row need room: a narrow page has a list that opens in their place. They are light on dark pages,
    // too, since plotly paints the chosen one in a light colour of its own.
    updatemenus: (own.updatemenus ?? []).map((menu) => ({
      ...menu, ...(narrow && { type: "dropdown", direction: "down" }),
      bgcolor: "#dfe3e9", bordercolor: colour("--line"), font: { color: "#20242b" },
    })),
  });
  const figures = [...document.querySelectorAll(".plot")].map((box) => ({
    place: box.querySelector(".canvas"),
    content: JSON.parse(box.querySelector("script").textContent),
  }));
  // Named one by one: plotly's own choice of buttons holds some that send the figure elsewhere.
  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  const draw = () => {
    for (const { place, content } of figures) {
      const copy = structuredClone(content);
      // On a narrow page the legend has one entry a line: it gets room of its own, not the figure's.
      const entries = [...copy.data, ...(copy.layout.shapes ?? [])].filter((part) => part.name && part.showlegend !== false && part.visible !== false).length;
      const narrow = place.clientWidth < 560;
      place.style.height = `${copy.layout.height + (narrow ? 26 * entries : 0)}px`;
      delete copy.layout.height;
      Plotly.react(place, copy.data, layout(copy.layout, narrow), config);
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
