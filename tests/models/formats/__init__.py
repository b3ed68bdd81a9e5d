"""Reading model files: what is found, and what happens with damaged ones."""
