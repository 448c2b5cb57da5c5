(() => {
  "use strict";
  document.documentElement.classList.add("scripted");
  const config = JSON.parse(document.getElementById("chart-config").textContent);
  const options = {
    ast: true, // the interpreter: no code is made from text, so the page's policy needs no unsafe-eval
    actions: false,
    config,
    renderer: "svg", // colours are the page's CSS variables: light, dark and print follow by themselves
    tooltip: { disableDefaultStyle: true, theme: "page" },
  };
  const draw = async (box) => {
    const spec = JSON.parse(box.querySelector("script").textContent);
    const drawing = box.querySelector(".drawing");
    try {
      await vegaEmbed(drawing, spec, options);
      box.dataset.drawn = "yes";
    } catch (error) {
      box.dataset.drawn = "no";
      drawing.textContent = "This chart could not be drawn; its figures are in the text and tables around it.";
      throw error;
    }
  };
  document.querySelectorAll(".chart").forEach(draw);
})();
