"""The explorer as a Space of the Hugging Face hub."""

from crate_interp.commands.explore import Explore

explore = Explore(model=["photo", "photo_vit", "demo"], host="0.0.0.0", port=7860)

if __name__ == "__main__":
    explore.run()
