"""What all rooms use: files, downloads, progress, the device."""
