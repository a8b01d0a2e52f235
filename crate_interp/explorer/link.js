// Keeps the address of the page that of the view, so that a copied address shows the same.
function show() {
  if (props.value) history.replaceState(null, "", "?" + props.value);
}
watch("value", show);
show();

// Gradio's own event of a tab also fires when the page is made, and would undo what a link says.
document.addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) trigger("view", { title: tab.textContent.trim() });
});
