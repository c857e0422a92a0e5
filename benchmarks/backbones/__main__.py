"""`python -m benchmarks.backbones NAME --out FOLDER`, see the package."""

from benchmarks.backbones import main

main()
