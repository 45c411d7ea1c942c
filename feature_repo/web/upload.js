// Makes a chosen picture small before it is sent: encoders read far fewer pixels than a camera takes.
"use strict";
(() => {
  const SIDE = 1024;
  const input = document.getElementById("picture");
  if (!input) return;
  input.addEventListener("change", async () => {
    const [file] = input.files;
    input.setCustomValidity("");
    if (!file) return;
    try {
      const bitmap = await createImageBitmap(file);
      const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
      if (scale < 1) {
        const canvas = document.createElement("canvas");
        canvas.width = Math.max(1, Math.round(bitmap.width * scale));
        canvas.height = Math.max(1, Math.round(bitmap.height * scale));
        canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
        const files = new DataTransfer();
        files.items.add(new File([blob], "picture.jpg", { type: "image/jpeg" }));
        input.files = files.files;
      }
    } catch { /* the browser cannot read it: the service says what is wrong */ }
    if (input.files[0].size > Number(input.dataset.maxBytes)) {
      input.setCustomValidity("This picture is too large; choose a smaller one.");
      input.reportValidity();
    }
  });
})();
