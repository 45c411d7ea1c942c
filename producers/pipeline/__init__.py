"""`produce day`: the steps of a deployment in order, resumable, with one summary.

plan.py     the steps, from the section `pipeline` of a TOML file
run.py      runs the steps, each as a run of its own in the run log
process.py  one step: a child process that ends with its parent
feast_command.py  Feast's command line with a faster start
summary.py  what a day did, in lines
"""
