// Hands a file that lies in the value to the browser.
watch("value", () => {
  if (!props.value) return;
  const anchor = document.createElement("a");
  anchor.href = props.value.uri;
  anchor.download = props.value.name;
  anchor.click();
});
