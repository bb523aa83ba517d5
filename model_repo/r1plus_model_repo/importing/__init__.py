"""From published weights to engine folders: fetch, requantise, convert. Runs where engines are made, never in a pod."""
