// Reads a picture in the browser and hands it on as an event; the server writes no file of it.
const input = element.querySelector("input[type=file]"), said = element.querySelector("output");
const most = Number(input.dataset.most);

function send(file) {
  if (!file) return;
  said.textContent = "";
  if (file.size > most) {
    said.textContent = `${file.name}: ${Math.round(file.size / 1e6)} MB are more than the limit of ` +
      `${Math.round(most / 1e6)} MB`;
    return;
  }
  const reader = new FileReader();
  reader.onload = () => {
    trigger("upload", { name: file.name, content: reader.result.split(",")[1] || "" });
  };
  reader.readAsDataURL(file);
}

input.addEventListener("change", () => { send(input.files[0]); input.value = ""; });
element.addEventListener("dragover", (event) => event.preventDefault());
element.addEventListener("drop", (event) => {
  event.preventDefault();
  send(event.dataTransfer.files[0]);
});
