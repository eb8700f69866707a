# shellcheck shell=sh
# Source this before training on a CPU:  . script/malloc.sh
# glibc gives every large block back to the system when it is freed, and a training step frees
# and takes hundreds of megabytes: on two cores 40 % of the time went into page faults.  With
# these settings the blocks stay in the process, on huge pages, and that share drops to 1 %.
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_TRIM_THRESHOLD_=8589934592
export MALLOC_TOP_PAD_=268435456
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
