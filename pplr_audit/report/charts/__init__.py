"""Pictures as geometry: numbers in, positions out. A template turns them into SVG that follows the page's colors."""
