"""The commands of `ore`, one module each, and what they share:

    serve, chat, models, config, doctor     the commands
    options         options that several commands take, and the settings they make
    address         may this host be listened on, is this port free, and who has it
    conversation    talks to a server by the Responses API
    child           a server in a child process
    progress        progress of downloads

At import they load click and the settings, nothing heavier: `ore --help` pays for every import here.
"""
