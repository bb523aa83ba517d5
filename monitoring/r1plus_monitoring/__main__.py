"""`python -m r1plus_monitoring`: the supervisor."""

from r1plus_monitoring.process.supervisor import main

if __name__ == "__main__":
    main()
