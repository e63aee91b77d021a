"""Words of the synthetic shop: topics, brands and the words that say nothing about taste."""

from __future__ import annotations

# One line per topic: the department, then the wordings a title may use.
_TOPIC_LINES = """
Protection: bumper case, slim case, hard shell case, silicone case, leather folio case, flip case
Protection: screen protector, tempered glass screen, privacy screen film, screen guard, screen foil, glass film
Protection: waterproof pouch, dry bag, underwater pouch, running armband pouch, floating bag, waist pouch
Power: wall charger, car charger, mains charger, wireless charging pad, travel charger, charging plug
Power: USB cable, data sync cable, braided cord, extension cable, USB lead, adapter cable
Power: power bank, portable battery, spare battery, lithium battery, solar battery, battery pack
Audio: wired earphones, stereo earphones, in-ear earbuds, sport earbuds, wireless earbuds, earphones with remote
Audio: handsfree headset, mono headset, call headset, microphone headset, office headset, over-ear headset
Audio: bluetooth speaker, portable loudspeaker, shower speaker, bass speaker, speaker dock, mini loudspeaker
Accessories: dashboard mount, windshield mount, vent mount, car holder, bicycle holder, car cradle mount
Accessories: selfie stick, camera tripod, clip-on lens, camera ring light, camera remote, wide angle lens
Accessories: memory card, microSD card, flash drive, card reader, storage card, memory stick
""".strip().splitlines()  # noqa: E501

DEPARTMENTS: tuple[str, ...] = tuple(line.split(": ")[0] for line in _TOPIC_LINES)
WORDINGS: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split(": ")[1].split(", ")) for line in _TOPIC_LINES
)

BRANDS: tuple[str, ...] = tuple(
    "Norvik Caldera Lumetra Ostwind Pinecrest Quanto Ravello Sablon Tindra Umbrel Velora Westmark "
    "Xandia Yarrow Zephra Altona Brisco Corvia Dunmore Elara Fenwick Galdor Hestia Ivaro".split()
)
MANNERS: tuple[str, ...] = tuple(
    "premium compact lightweight durable universal classic original sturdy foldable handy "
    "professional upgraded".split()
)
DEVICES: tuple[str, ...] = tuple(
    "iPhone Galaxy Pixel Xperia smartphone tablet Android Nokia Motorola Huawei".split()
)
COLOURS: tuple[str, ...] = tuple(
    "black white blue red silver green pink grey gold purple".split()
)
