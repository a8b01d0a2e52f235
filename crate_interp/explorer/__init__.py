"""A page in the browser for looking into models: pictures, views of them, and the page itself."""
