from jaxtrace.cli import main

main()
