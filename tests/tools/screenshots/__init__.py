"""Pictures of the pages in all states, languages, looks and widths."""
