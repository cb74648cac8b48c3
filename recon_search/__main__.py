"""`python -m recon_search` is `recon-search`."""

from recon_search.cli import main

if __name__ == "__main__":
    main()
