"""What all choices of a round come to together: any devices at any cuts, in their best turns."""
