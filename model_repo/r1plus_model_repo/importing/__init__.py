"""From published weights to engine folders: fetch, requantise, convert. Used where engines are made, never in a pod."""
