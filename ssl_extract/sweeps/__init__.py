"""Sweeps: the runs of an experiment in many processes.

Nothing here is a scheduler. `local` shares out the missing runs of an experiment among worker
processes of this machine; `slurm` gives them to Slurm as array jobs. All that a sweep knows is in
the workdir: a run is finished or it is not, and has a log. So the same command, given again after
whatever ended the last one, computes exactly what is missing.

**Stages that runs share.** Locks let one process make a shared stage, such as the victim, and the
others wait. `jobs.waves` orders the runs so that little is waited for: first runs that have no
stage to make in common, then those that can use what the first ones made. On one machine that is
only the order, for a worker that waits costs nothing but its share of the cores. Through Slurm a
waiting job would hold a GPU, so each wave is an array job of its own that starts when the wave
before has ended, whether or not its runs succeeded.
"""
